"""The same sum computed several ways."""

from regard.kernels import fused, reference

# each is called with (query, key, value, mask=None, causal=False)
KERNELS = {"reference": reference.attend, "fused": fused.attend}
