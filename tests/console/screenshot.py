"""The picture of the console in the README: `python -m tests.console.screenshot` while `make demo` runs.

It waits until the model has been tested, and writes docs/images/console.png: the overview at desk width, in light.
"""

import argparse
import time
from pathlib import Path

from tests.console.chromium import chromium, missing, tab

FILE = Path(__file__).parents[2] / "docs" / "images" / "console.png"
MAX_BYTES = 150_000
WIDTH, HEIGHT = 1120, 900
WAIT_S = 900


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", nargs="?", default="http://127.0.0.1:8080/", help="address of a console")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--versions", type=int, default=3, help="wait until this many versions have answered")
    asked = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    with chromium() as browser, tab(browser, dark=asked.dark) as page:
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        until = time.monotonic() + WAIT_S
        while True:
            page.goto(asked.page)
            page.wait_for_timeout(1_500)
            found = page.request.get(asked.page + "overview/history.json").json()
            if len(found["versions"]) >= asked.versions and any(found["hit"][0][-6:]):
                break
            if time.monotonic() > until:
                raise SystemExit(f"{asked.page} has not shown {asked.versions} versions within {WAIT_S} s")
            page.wait_for_timeout(5_000)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(asked.out))
        page.complaints.clear()  # a page that is left while it loads complains
    size = asked.out.stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{asked.out} has {size:,} bytes, at most {MAX_BYTES:,} are wanted")
    print(f"{asked.out}: {size:,} bytes")


if __name__ == "__main__":
    main()
