"""What the surface names and no part of the project does yet. Setting it is refused; it is never accepted and ignored.

A flag is on the list by being declared with `unbuilt(...)`.
"""

from __future__ import annotations

from lightrft.args.surface import FLAGS

UNBUILT: dict[str, str] = {flag.name: flag.record.unbuilt for flag in FLAGS.values() if flag.record.unbuilt}
