"""The command line: thin commands over the SDK. Modules load when their command is used, so that help is instant."""
