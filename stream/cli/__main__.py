"""`python -m stream.cli`, as `anabranch up` starts its worker and trainer."""

from stream.cli.app import main

main()
