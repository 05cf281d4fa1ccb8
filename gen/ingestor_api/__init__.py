"""Generated from proto/ by `make gen`: do not edit.

The messages, the service base and the client stubs of `analytics.v1`, and `descriptors.binpb`, the
FileDescriptorSet of the same files. Import it as this package: betterproto2 writes a `google` folder of
its own, which would shadow protobuf's if this folder were a source root.
"""
