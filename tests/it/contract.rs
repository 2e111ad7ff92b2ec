//! Each row of the table of answers.

use crate::harness::{Edge, Origin};

#[tokio::test]
async fn the_targets_answer_is_labelled_as_granted() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users").bearer("k1").await.expect_granted(200).expect_body("ok");
}
