"""Reports: run folders -> records (`reading`, `checking`) -> rows and differences (`comparing`) -> tables (`contents`,
`tables`) and a page (`page`, `pictures`). Nothing here needs torch, so that a report of many runs is there at once.
"""
