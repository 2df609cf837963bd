"""Names the places of a decoder block that can be read and edited; `hook_points` finds them in a model."""

HOOK_POINTS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
