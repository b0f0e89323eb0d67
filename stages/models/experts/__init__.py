"""TeachText's networks on expert features computed beforehand: MoEE and CE (collaborative experts)."""
