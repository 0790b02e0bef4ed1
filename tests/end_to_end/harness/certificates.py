"""Certificate authorities: of servers, and of clients with their revocation lists. All made by openssl."""

from .processes import run

EXTENSIONS = "subjectAltName={names}\nbasicConstraints=critical,CA:false\nextendedKeyUsage=serverAuth\n"


class Authority:
    """Signs certificates; clients trust `certificate`."""

    def __init__(self, directory):
        self.directory = directory
        self.certificate = directory / "authority.pem"
        self.key = directory / "authority.key"
        # fmt: off
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=Sealane trial authority", "-keyout", self.key, "-out", self.certificate)
        # fmt: on

    def sign(self, stem, kind, *names):
        """Writes STEM.pem and STEM.key for DNS `names`, `kind` "ecdsa" or "rsa", replacing both at once. Gives the serial number."""
        key_options = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[kind]
        request, extensions = self.directory / f"{stem}.csr", self.directory / f"{stem}.ext"
        certificate, key = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        extensions.write_text(EXTENSIONS.format(names=",".join(f"DNS:{name}" for name in names)))
        # fmt: off
        run("openssl", "req", "-new", "-newkey", *key_options, "-nodes", "-subj", f"/CN={names[0]}",
            "-keyout", f"{key}.new", "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
            "-days", "30", "-extfile", extensions, "-out", f"{certificate}.new")
        serial = run("openssl", "x509", "-in", f"{certificate}.new", "-noout", "-serial").stdout.strip().partition("=")[2]
        # fmt: on
        (self.directory / f"{key.name}.new").replace(key)
        (self.directory / f"{certificate.name}.new").replace(certificate)
        return serial


CLIENTS = """[ca]
default_ca = here
[here]
database = {stem}.index
serial = {stem}.serial
crlnumber = {stem}.crlnumber
new_certs_dir = .
certificate = {stem}.pem
private_key = {stem}.key
default_md = sha256
default_crl_days = 30
policy = any
x509_extensions = client
crl_extensions = list
unique_subject = no
[any]
organizationName = optional
commonName = supplied
[client]
basicConstraints = critical,CA:false
extendedKeyUsage = clientAuth
[list]
authorityKeyIdentifier = keyid
"""

AGES = {"valid": ("20200101000000Z", "20491231000000Z"), "expired": ("20200101000000Z", "20210101000000Z")}


class ClientAuthority:
    """Signs clients' certificates: STEM.pem of itself, STEM.crl with whom it has revoked."""

    def __init__(self, directory, stem):
        self.directory, self.stem = directory, stem
        (directory / f"{stem}.config").write_text(CLIENTS.format(stem=stem))
        (directory / f"{stem}.index").write_text("")
        for number in ("serial", "crlnumber"):
            (directory / f"{stem}.{number}").write_text("01\n")
        # fmt: off
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                     "-subj", f"/CN={stem}", "-keyout", f"{stem}.key", "-out", f"{stem}.pem")
        # fmt: on
        self.list()

    def openssl(self, *words):
        run("openssl", *words, cwd=self.directory)

    def ca(self, *words):
        self.openssl("ca", "-config", f"{self.stem}.config", "-batch", *words)

    def sign(self, stem, age="valid"):
        """A certificate with its key, as a pair of paths."""
        begin, end = AGES[age]
        # fmt: off
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/O=Shop/CN={stem}",
                     "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
        # fmt: on
        self.ca("-notext", "-startdate", begin, "-enddate", end, "-in", f"{stem}.csr", "-out", f"{stem}.pem")
        return self.directory / f"{stem}.pem", self.directory / f"{stem}.key"

    def revoke(self, stem):
        """Revokes a certificate and writes the list anew."""
        self.ca("-revoke", f"{stem}.pem")
        self.list()

    def list(self):
        self.ca("-gencrl", "-out", f"{self.stem}.crl.new")
        (self.directory / f"{self.stem}.crl.new").replace(self.directory / f"{self.stem}.crl")
