"""What the FastAPI app of every service is made of; `mao_shared.service` puts it together."""
