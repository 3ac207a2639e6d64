"""What the examples share: how to start the gateway, a task, and the code that a model would write for it."""

import shutil
import sys
from pathlib import Path

MCPGATE = shutil.which("mcpgate") or str(Path(sys.executable).with_name("mcpgate"))
ARGUMENTS = ["serve", "--stdio", "-c", str(Path(__file__).with_name("mcpgate.yaml"))]
QUESTION = "It is 09:00 in New York. What time is it in Tokyo, Berlin and Nairobi?"
CODE = """
zones = ["Asia/Tokyo", "Europe/Berlin", "Africa/Nairobi"]
times = await asyncio.gather(*[
    time.convert_time(source_timezone="America/New_York", time="09:00", target_timezone=zone) for zone in zones
])
{zone: t["target"]["datetime"][11:16] for zone, t in zip(zones, times)}
"""
