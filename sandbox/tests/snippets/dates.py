# datetime and timedelta
# result: ["2026-02-02T11:30:00", "2026-02-02 11:30", 6, 534600.0, "2026-03-01T10:00:00+00:00", ["2026-02-26", "2026-02-27"], true]
from datetime import date, datetime, timedelta, timezone

start = datetime(2026, 1, 30, 9, 30)
end = start + timedelta(days=3, hours=2)
parsed = datetime.strptime("05/02/2026 14:00", "%d/%m/%Y %H:%M")
aware = datetime.fromisoformat("2026-03-01T12:00:00+02:00")
week = [date(2026, 2, 26) + timedelta(days=n) for n in range(4)]
[
    end.isoformat(),
    end.strftime("%Y-%m-%d %H:%M"),
    (parsed - start).days,
    (parsed - start).total_seconds(),
    aware.astimezone(timezone.utc).isoformat(),
    [str(day) for day in week if day.weekday() < 5],
    start.replace(day=1) < parsed,
]
