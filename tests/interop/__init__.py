"""Tests that hold our files against those of Apache Kafka itself."""
