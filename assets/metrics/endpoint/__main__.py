"""`python -m assets.metrics.endpoint --path DIR`: one endpoint on one folder."""

import sys

from assets.metrics.endpoint import main

sys.exit(main())
