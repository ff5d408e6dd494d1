"""``python -m tagbrush`` and the script ``tagbrush``: the command line tool of the Rust crate itself."""

import sys

from . import _core


def main() -> int:
    """Run the tool with the arguments of this process, and give its exit status."""
    return _core.main(["tagbrush", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
