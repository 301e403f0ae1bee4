
ö
geo_config.protoinDriver.geo_config" 
GetCityRequest
id (Rid"D
City
id (Rid
name (	Rname
country (	Rcountry2]
GeoConfigServiceI
GetCity#.inDriver.geo_config.GetCityRequest.inDriver.geo_config.Citybproto3
å
users.protoinDriver.users"*
GetUserRequest
subject (	Rsubject"F
User
id (Rid
name (	Rname
verified (Rverified2J
UserService;
Get.inDriver.users.GetUserRequest.inDriver.users.Userbproto3
í
balance.protoinDriver.balance"-
GetBalanceRequest
subject (	Rsubject":
Balance
user_id (RuserId
amount (	Ramount2W
BalanceServiceE
Get#.inDriver.balance.GetBalanceRequest.inDriver.balance.Balancebproto3