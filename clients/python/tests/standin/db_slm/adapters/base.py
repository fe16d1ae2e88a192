class NullHotPathAdapter:
    def read_metadata(self, key):
        return None

    def write_metadata(self, key, value):
        return None

    def fetch_context_tokens(self, context_hash):
        return None

    def context_relativism(self, tree, *, limit=32, depth=None):
        return []
