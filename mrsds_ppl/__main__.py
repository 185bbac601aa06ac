"""``python -m mrsds_ppl`` is the ``mrsds`` command."""

from mrsds_ppl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
