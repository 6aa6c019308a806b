//! Random histories of one customer and random small lifecycles, near the edges where mistakes live.
