"""The dashboard: pages rendered on the server, at `/` and below `/ui/`.

A page is a module with a router and its templates. Its handler asks the node's API through `NodeApi`, decides
in pure functions what is shown, and renders a template inside the frame (`site`). A button is a form that
posts to a handler of the same module, which calls the API and redirects back (`forms`). Nothing is inline:
the policy allows one stylesheet and the scripts of `static/`, which only keep a page current. Pages read
without scripts.

`site`      templates, security headers, errors as pages, the frame around every page
`node_api`  typed calls to the node's services
`forms`     what a form posts, and the message that the next page shows
`formats`   times, sizes, numbers, ids as HTML
`marks`     states as icon, word and colour; strips of ticks
`plots`     plots as SVG

`today` is the first page; a folder holds the pages of one noun: `runs`, `pipelines`, `datasets`, `agreement`,
`federation`, `alarms`, `first_run`. `routers` lists them all. They are loaded with the first
request for a page (`mao_gateway.page_routes`).
"""
