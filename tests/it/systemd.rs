//! What the service manager is told.

use std::time::Instant;

use crate::harness::notify::{ServiceManager, value};
use crate::harness::{Edge, Origin, ms};

fn watched(manager: &ServiceManager, origin: &Origin) -> crate::harness::edge::EdgeBuilder {
    Edge::to(origin).unhurried().environment("NOTIFY_SOCKET", &manager.path())
}

/// The microseconds of the monotonic clock, as another process sees them.
fn monotonic() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("this is Linux");
    let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    (seconds * 1e6) as u64
}

#[tokio::test]
async fn the_manager_learns_when_the_daemon_is_ready_and_when_it_stops() {
    let (manager, origin) = (ServiceManager::new(), Origin::replying(200).await);
    let mut edge = watched(&manager, &origin).start().await;
    let ready = manager.message().await;
    assert_eq!(value(&ready, "READY"), Some("1"), "{ready:?}");
    let status = value(&ready, "STATUS").expect("a line for `systemctl status`");
    for part in ["test-1", "1 proxies", &edge.address().to_string(), "generation 1"] {
        assert!(status.contains(part), "{status}");
    }
    edge.signal("TERM");
    let stopping = manager.message().await;
    assert_eq!(value(&stopping, "STOPPING"), Some("1"), "{stopping:?}");
    assert!(value(&stopping, "STATUS").is_some(), "{stopping:?}");
    assert_eq!(edge.exited().await, Some(0));
}

#[tokio::test]
async fn a_reload_is_announced_with_the_time_and_ended_whether_it_went_well_or_not() {
    let (manager, origin) = (ServiceManager::new(), Origin::replying(200).await);
    let edge = watched(&manager, &origin).start().await;
    manager.until("READY").await;
    // A signal, and a file that does not hold: each is one reload.
    for bad in [false, true] {
        let before = monotonic();
        match bad {
            false => edge.signal("HUP"),
            true => edge.write("proxies.d/more.yaml", "nonsense: 1\n"),
        }
        let reloading = manager.until("RELOADING").await;
        assert_eq!(value(&reloading, "RELOADING"), Some("1"));
        let at: u64 = value(&reloading, "MONOTONIC_USEC").and_then(|at| at.parse().ok()).expect("microseconds");
        assert!(at + 1_000_000 > before && at < monotonic() + 1_000_000, "{before} {at}");
        let ready = manager.message().await;
        assert_eq!(value(&ready, "READY"), Some("1"), "{ready:?}");
        assert!(value(&ready, "STATUS").is_some_and(|status| status.contains("generation 2")), "{ready:?}");
    }
}

#[tokio::test]
async fn the_watchdog_is_fed_at_least_twice_in_its_time() {
    let (manager, origin) = (ServiceManager::new(), Origin::replying(200).await);
    let _edge = watched(&manager, &origin).environment("WATCHDOG_USEC", "4000000").start().await;
    manager.until("WATCHDOG").await;
    for _ in 0..2 {
        let last = Instant::now();
        let alive = manager.until("WATCHDOG").await;
        assert_eq!(value(&alive, "WATCHDOG"), Some("1"));
        assert!(last.elapsed() < ms(3000), "{:?}", last.elapsed());
    }
}

#[tokio::test]
async fn without_a_watchdog_nobody_is_fed() {
    let (manager, origin) = (ServiceManager::new(), Origin::replying(200).await);
    let mut edge = watched(&manager, &origin).start().await;
    manager.until("READY").await;
    tokio::time::sleep(ms(2500)).await; // twice as long as the daemon looks at its watchdog
    edge.signal("TERM");
    let next = manager.message().await;
    assert_eq!(value(&next, "STOPPING"), Some("1"), "{next:?}");
    assert_eq!(edge.exited().await, Some(0));
}

#[tokio::test]
async fn a_handover_names_the_new_main_process() {
    let (manager, origin) = (ServiceManager::new(), Origin::replying(200).await);
    let mut edge = watched(&manager, &origin)
        .environment("WATCHDOG_USEC", "4000000")
        .environment("WATCHDOG_PID", "1") // of another process: not ours to feed
        .start()
        .await;
    manager.until("READY").await;
    edge.signal("QUIT");
    let succeeded = manager.until("MAINPID").await;
    assert_eq!(edge.exited().await, Some(0));
    let [successor] = &edge.successors()[..] else { panic!("one successor: {}", edge.stderr()) };
    assert_eq!(value(&succeeded, "MAINPID"), Some(successor.as_str()));
    assert!(value(&succeeded, "STATUS").is_some_and(|status| status.contains(successor.as_str())), "{succeeded:?}");
    // The successor feeds the watchdog from here on, and the predecessor has not said that the service stops.
    let next = manager.message().await;
    assert_eq!(value(&next, "WATCHDOG"), Some("1"), "{next:?}");
    edge.signal_to(successor, "TERM");
    let stopping = manager.until("STOPPING").await;
    assert_eq!(value(&stopping, "STOPPING"), Some("1"));
}

#[tokio::test]
async fn a_failed_handover_is_told_too() {
    let (manager, origin) = (ServiceManager::new(), Origin::replying(200).await);
    let edge = watched(&manager, &origin).start().await;
    manager.until("READY").await;
    std::fs::write(edge.folder().join("proxies.d/bad.yaml"), "nonsense: 1\n").expect("the folder is ours");
    edge.signal("QUIT");
    loop {
        let message = manager.until("STATUS").await;
        assert_eq!(value(&message, "MAINPID"), None, "{message:?}");
        if value(&message, "STATUS").is_some_and(|status| status.contains("no successor")) {
            break;
        }
    }
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}
