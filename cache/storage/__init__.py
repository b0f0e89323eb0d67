"""Complete or absent files, where a store lies, what it was made from, sealed documents."""
