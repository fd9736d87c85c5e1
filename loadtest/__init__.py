"""Load on the gateway and on peers, side by side; every figure comes with the check that nothing was lost."""
