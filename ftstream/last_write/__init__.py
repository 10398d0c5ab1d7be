"""The rule of flows that both sites write: versions, refusals, and what a Faust Table holds of them."""
