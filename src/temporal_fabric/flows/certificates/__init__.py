"""What is known about a flow, how it is known, and what that allows to be claimed.

A certificate family is a module. Each returns a `record.Finding`: a number, how it was found,
and what it means. A profile (`profiles`) holds bounds and says which findings must be proved;
`record.judge` compares the two, and `decision.decide` turns all of them into RED, AMBER or
GREEN. These three modules import nothing outside the standard library, so that workflow code
may use them; the families compute, in float64.
"""
