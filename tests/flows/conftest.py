"""JAX at its strictest, so that no cast and no broadcast happens by accident."""

from __future__ import annotations

import jax

jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - the signature is JAX's
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs here are small and run once or twice: compiling them is nearly all there is to wait for.
jax.config.update("jax_disable_most_optimizations", True)  # noqa: FBT003
