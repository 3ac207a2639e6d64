# heapq and bisect
# result: [["high", "mid", "low"], [10, 20, 25, 30], ["F", "C", "A"], {"a": 0, "b": 1, "c": 3, "d": 4}, [9, 5], [1, 2, 3, 4]]
import bisect
import heapq

heap = []
for priority, task in [(3, "low"), (1, "high"), (2, "mid")]:
    heapq.heappush(heap, (priority, task))
order = [heapq.heappop(heap)[1] for _ in range(len(heap))]
scores = [10, 20, 30]
bisect.insort(scores, 25)
grades = [("F", "D", "C", "B", "A")[bisect.bisect([60, 70, 80, 90], score)] for score in [33, 75, 90]]
graph = {"a": {"b": 1, "c": 4}, "b": {"c": 2, "d": 6}, "c": {"d": 1}, "d": {}}
distances, queue = {}, [(0, "a")]
while queue:
    distance, node = heapq.heappop(queue)
    if node in distances:
        continue
    distances[node] = distance
    for neighbour, weight in graph[node].items():
        heapq.heappush(queue, (distance + weight, neighbour))
[order, scores, grades, distances, heapq.nlargest(2, [5, 1, 9]), list(heapq.merge([1, 4], [2, 3]))]
