"""blogtune: fine-tune a small language model on a blog, and know whether it helped."""

import blogtune.common  # noqa: F401  # pyright: ignore[reportUnusedImport]
