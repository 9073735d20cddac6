fn main() -> Result<(), miniflow::Error> {
    use miniflow::*;
    use std::time::*;
    let engine = Engine::builder()
        .handler(|t| {
            let p = t.payload().to_vec();
            Ok(t.reply(&p)?)
        })
        .workers(Class::CpuBound, 1)
        .workers(Class::IoBound, 0)
        .start()?;
    let id = engine.submit(b"hello")?;
    let c = engine.wait(id, None)?;
    println!("{c:?} {}", c.text());
    let n = 200_000;
    for _ in 0..5 {
        let t = Instant::now();
        for i in 0..n as u64 {
            let id = engine.submit(&i.to_le_bytes())?;
            let c = engine.wait(id, None)?;
            assert_eq!(c.as_bytes(), Some(&i.to_le_bytes()[..]));
        }
        println!("rtt {:?}", t.elapsed() / n);
        let t = Instant::now();
        let (mut sent, mut got) = (0u64, 0u64);
        let total = 5_000_000u64;
        let mut out = Vec::with_capacity(1024);
        while got < total {
            let want = (total - sent).min(64).min(1000 - (sent - got));
            let mut k = 0;
            if want > 0 {
                let e = engine.submit_each(
                    (0..want).map(|_| Submission::from(&b"12345678"[..])),
                    |_| k += 1,
                );
                if let Some(e) = e {
                    println!("{e}");
                }
            }
            sent += k;
            out.clear();
            got += engine.poll_into(&mut out, 256, Some(Duration::ZERO))? as u64;
        }
        println!(
            "pipelined {:.2} M/s",
            total as f64 / t.elapsed().as_secs_f64() / 1e6
        );
    }
    println!("{}", engine.status_json());
    engine.stop(Some(Duration::from_secs(1)))?;
    Ok(())
}
