# html and XML
# result: [["/one", "/two?a=1&b=2"], {"1": "First", "2": "Second"}, "<item id=\"3\">&lt;new&gt;</item>", "&lt;a &amp; b&gt;", "<é"]
import html
import xml.etree.ElementTree as ET
from html.parser import HTMLParser


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs).get("href"))


parser = Links()
parser.feed('<p>See <a href="/one">one</a> and <a href="/two?a=1&amp;b=2">two</a></p>')
root = ET.fromstring('<feed><item id="1"><title>First</title></item><item id="2"><title>Second</title></item></feed>')
titles = {item.get("id"): item.findtext("title") for item in root.findall("item")}
ET.SubElement(root, "item", id="3").text = "<new>"
[parser.links, titles, ET.tostring(root[-1], encoding="unicode"), html.escape("<a & b>"), html.unescape("&lt;&eacute;")]
