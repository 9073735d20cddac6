def main(params, context):
    limit = params.get("limit", 100)
    sieve = [True] * (limit + 1)
    sieve[0:2] = [False, False]
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = [False] * len(sieve[n * n :: n])
    return {"limit": limit, "primes": sum(sieve), "worker": context.worker_id, "task": context.task_id}
