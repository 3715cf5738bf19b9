use super::*;

/// RFC 4231, test cases 1 and 6 (a key longer than a block).
#[test]
fn hmac_vectors() {
    assert_eq!(
        hex::encode(hmac(&[0x0b; 20], b"Hi There")),
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    );
    assert_eq!(
        hex::encode(hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}

/// The exchange printed in RFC 7677, section 3 (which names the user in its first message).
#[test]
fn rfc_exchange() {
    let login = Login {
        password: "pencil".into(),
        nonce: "rOprNGfwEbeRWgbNEkqO".into(),
        client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
    };
    let server = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let (answer, proof) = login.last(server).unwrap();
    assert!(answer.ends_with("p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{answer}");
    assert!(proof.holds("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    assert!(!proof.holds("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="));
}

#[test]
fn a_server_that_does_not_continue_our_nonce_is_refused() {
    let login = Login::new("pencil", "abc".into());
    assert!(login.last("r=abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").is_none());
    assert!(login.last("r=xyz1,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").is_none());
    assert!(login.last("r=abc1,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000").is_none());
    assert!(login.last("x").is_none());
}
