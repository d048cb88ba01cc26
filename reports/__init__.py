"""Reports: run folders -> records (`reading`, `checking`) -> rows and differences (`comparing`) -> tables (`contents`,
`tables`) and a page (`page`, `pictures`). Nothing here imports torch, so that a report starts quickly.
"""
