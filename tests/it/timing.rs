//! How long a denial takes must not tell why it is one.

use std::time::{Duration, Instant};

use crate::harness::{Edge, Origin, Request};

#[tokio::test]
async fn an_unknown_proxy_takes_as_long_as_a_wrong_credential() {
    const ROUNDS: usize = 300;
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .edge("limits: { invalid_credentials_per_minute: 0 }")
        .fragment(
            "proxies:\n  - { id: dormant, target: origin, target_credential: origin-key, \
             proxy_credentials: [client], active: false }\n",
        )
        .start()
        .await;
    let kinds: [(&str, Request); 3] = [
        ("wrong credential", edge.get("/api/demo/x").bearer("nope")),
        ("unknown proxy", edge.get("/api/none/x").bearer("nope")),
        ("inactive proxy", edge.get("/api/dormant/x").bearer("k1")),
    ];
    let mut client = edge.connect().await;
    let mut samples: [Vec<Duration>; 3] = Default::default();
    // In turn, so that whatever else the machine does falls on all alike.
    for _ in 0..ROUNDS {
        for ((_, request), samples) in kinds.iter().zip(&mut samples) {
            let started = Instant::now();
            let answer = client.exchange(request).await;
            samples.push(started.elapsed());
            answer.expect_denied().expect_reusable();
        }
    }
    let medians: Vec<Duration> = samples
        .iter_mut()
        .map(|samples| {
            samples.sort_unstable();
            samples[ROUNDS / 2]
        })
        .collect();
    for ((name, _), median) in kinds.iter().zip(&medians) {
        println!("{name:<20} {median:?}");
        let difference = median.abs_diff(medians[0]);
        let noise = medians[0] / 2 + Duration::from_micros(50);
        assert!(difference < noise, "{name} differs by {difference:?}: {medians:?}");
    }
}
