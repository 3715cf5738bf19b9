use super::*;

#[tokio::test]
async fn a_port_in_use_names_the_flag_and_another_port() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind("--listen", address).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("--listen 127.0.0.1:"), "{error}");
}

#[test]
fn clients_on_this_machine_are_told_an_address_they_can_use() {
    assert_eq!(reachable("0.0.0.0:6432".parse().unwrap()).to_string(), "127.0.0.1:6432");
    assert_eq!(reachable("[::]:6432".parse().unwrap()).to_string(), "[::1]:6432");
    assert_eq!(reachable("192.0.2.1:6432".parse().unwrap()).to_string(), "192.0.2.1:6432");
}
