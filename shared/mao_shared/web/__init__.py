"""What the FastAPI app of every service is made of; `mao_shared.service.app` puts it together."""
