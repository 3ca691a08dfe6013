"""`anabranch serve`: answers over HTTP, asked of the workers through Kafka."""
