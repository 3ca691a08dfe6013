"""`python -m stream.cli`, as `anabranch up` starts its worker and trainer."""

from stream.cli.entry import main

main()
