# zoneinfo
# result: [true, "2026-07-15T12:00:00+02:00", "15:00 CEST", 22]
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

berlin = ZoneInfo("Europe/Berlin")
winter = datetime(2026, 1, 15, 12, tzinfo=berlin)
summer = datetime(2026, 7, 15, 12, tzinfo=berlin)
meeting = datetime(2026, 7, 15, 9, 0, tzinfo=ZoneInfo("America/New_York"))
[
    winter.utcoffset() == timedelta(hours=1),
    summer.isoformat(),
    meeting.astimezone(berlin).strftime("%H:%M %Z"),
    meeting.astimezone(ZoneInfo("Asia/Tokyo")).hour,
]
