"""ftstream's commands for all flows that have an agent, those too that are not switched on yet.

`python -m tests.system.all_flows COMMAND`.
"""

from __future__ import annotations

import ftstream.flows
from ftstream.flows import FLOWS, Capture

ftstream.flows.READY = tuple(flow for flow in FLOWS if flow.capture is not Capture.BATCH)

if __name__ == "__main__":
    from ftstream.cli import main

    main(prog_name="ftstream")
