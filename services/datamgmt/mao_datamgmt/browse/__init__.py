"""Looking at datasets: state, history, files, differences, archives, `git clone` over HTTP."""
