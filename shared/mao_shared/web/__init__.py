"""Parts of every service's FastAPI app, assembled by `mao_shared.service.app`."""
