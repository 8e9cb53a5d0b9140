"""`python -m retrain_jobs`: one retraining job; `main` says the rest."""

import sys

from retrain_jobs.heap import start_over

if __name__ == "__main__":
    start_over()
    from retrain_jobs.main import main  # a second's imports, which are to be made once

    sys.exit(main())
