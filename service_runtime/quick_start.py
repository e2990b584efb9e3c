"""What makes the start of a service quick. To be imported by a service's process alone, before anything else."""

import gc
import sys

# Until it serves: what is imported stays, and to look through it again and again meanwhile takes a fifth of the start.
gc.disable()

# httpx has a command of its own, and structlog tracebacks in colour: no service uses either, nor what they need, which
# takes a tenth of the start. Both libraries do without.
sys.modules |= dict.fromkeys(("httpx._main", "rich"))  # type: ignore[arg-type]  # None is "not found"
