"""The device runs a captured step again by itself: a control kernel after it decides."""
