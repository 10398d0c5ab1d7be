"""A worker of two flows: gfx, and one whose target is External. `python -m tests.system.two_flows`."""

from __future__ import annotations

import asyncio

from ftstream.app import Process, Worker
from ftstream.flows import GFX, Capture, Conflict, Flow, Site, Table
from ftstream.settings import load_settings

JOBS = Flow(
    name="jobs",
    tables=(Table("render_queue"),),
    capture=Capture.LOG,
    sources=(Site.SUPABASE,),
    conflict=Conflict.SUPABASE_OWNS,
    ready=True,
)


def main() -> None:
    """What `ftstream worker` does, for both."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = Worker(load_settings(), flows=(GFX, JOBS))
    Process(worker, loop=loop, loglevel="info").execute_from_commandline()


if __name__ == "__main__":
    main()
