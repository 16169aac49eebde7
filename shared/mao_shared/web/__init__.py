"""The parts of every service's FastAPI app; `mao_shared.service.app` assembles them."""
