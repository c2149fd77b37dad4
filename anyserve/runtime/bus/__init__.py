"""The message bus: what it promises (`base`), over MQTT (`mqtt`) and in memory (`memory`)."""
