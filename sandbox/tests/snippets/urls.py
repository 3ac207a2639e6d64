# urllib.parse
# result: [["https", "api.example.com", 8080, "/v1/items", "top"], {"tag": ["a", "b"], "q": ["hello world"]}, "q=a+b&page=2", "a%2Fb%20c", "ü", "https://example.com/api", "https://api.example.com:8080/v1/items"]
from urllib.parse import parse_qs, quote, unquote, urlencode, urljoin, urlparse

url = urlparse("https://api.example.com:8080/v1/items?tag=a&tag=b&q=hello%20world#top")
[
    [url.scheme, url.hostname, url.port, url.path, url.fragment],
    parse_qs(url.query),
    urlencode({"q": "a b", "page": 2}),
    quote("a/b c", safe=""),
    unquote("%C3%BC"),
    urljoin("https://example.com/docs/intro", "../api"),
    url._replace(query="", fragment="").geturl(),
]
