output "deployment" {
  description = "What siren.run --deployment takes."
  value       = var.name
}

output "bucket" {
  value = aws_s3_bucket.this.id
}

output "function_name" {
  value = aws_lambda_function.worker.function_name
}

output "redis_url" {
  description = "As workers reach it; null without a cache."
  value       = local.redis_url
}
