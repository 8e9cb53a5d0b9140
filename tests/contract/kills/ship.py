"""The gateway's shipper, with failpoints that can be armed while it runs."""

from __future__ import annotations

import sys
from pathlib import Path

from service.ship import main, read_order
from tests.contract.kills.arming import follow


def armed() -> None:
    order = read_order(sys.stdin.buffer)
    follow(Path(order.folder).parents[1] / "ship.arm")
    main(order)


if __name__ == "__main__":
    armed()
