"""Lesions of COVID-19 on chest CT, CT-Angel."""
