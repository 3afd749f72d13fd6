"""A page that shows what a network answers, where it computes, and what that costs.

`sources` has the networks: in this process, exported, or on a server; `photographs`
what is on the page; `measuring` the clock; `page` puts them together; `server` speaks
HTTP with the files in `static`. Nothing is loaded from elsewhere.
"""
